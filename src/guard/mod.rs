//! The resource side: the program on each host that is acted upon.
