"""Who answers: agents and the dialogue they hold. Knows no phone."""
