"""What errata says of whom, beside what was planted: who is right, who is missed and who is accused for nothing."""
