//! `nft-listings` of tests/fuzz, guided.
#![no_main]

fuzz::guide!("nft-listings");
