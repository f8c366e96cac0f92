//! Every operation of every back end against plain Rust.
