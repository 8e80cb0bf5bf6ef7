"""Looking at what lies on disk: inspect (what it holds), verify (whether it is whole), contact sheets."""
