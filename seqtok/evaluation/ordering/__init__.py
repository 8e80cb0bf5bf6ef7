"""Orders held against each other: how early a prefix says what a person would say first, and what may be concluded."""
