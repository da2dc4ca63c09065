//! The leader's loop: decide, commit, act, read back, commit.
