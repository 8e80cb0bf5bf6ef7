"""Tests of ar_model.documents."""
