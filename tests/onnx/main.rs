//! The conformance suite of exact attention: one test per case of the ONNX `Attention` contract (opsets 23 to 25),
//! under its published name. Expected answers come from the f64 reference.

#[path = "../reference/mod.rs"]
mod reference;

/// Tests, and the list of their names for [`every_case_has_its_test`].
macro_rules! cases {
    ($(fn $name:ident() $body:block)+) => {
        pub const NAMES: &[&str] = &[$(stringify!($name)),+];
        $(#[test] fn $name() $body)+
    };
}

mod fixture;
mod four_d;
mod half;
mod masked;
mod names;
mod past;
mod three_d;
mod windows;

#[test]
fn every_case_has_its_test() {
    let parts = [
        four_d::NAMES,
        three_d::NAMES,
        past::NAMES,
        masked::NAMES,
        windows::NAMES,
    ];
    let mut tests: Vec<&str> = parts.concat();
    let mut contract: Vec<&str> = names::CONTRACT.to_vec();
    tests.sort_unstable();
    contract.sort_unstable();
    assert_eq!(contract.len(), 83);
    assert_eq!(tests, contract);
    assert_eq!(half::NAMES, names::HALF);
}
