//! What `watchdogctl` asks and prints.
