//! The configuration file: as typed (raw), then validated. Every fault is named with its line or field.
