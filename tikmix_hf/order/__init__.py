"""Which sample comes when: pure functions of a sample's ordinal, the seed and the schedule."""
