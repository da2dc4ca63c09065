//! `backup-files` of tests/fuzz, guided.
#![no_main]

fuzz::guide!("backup-files");
