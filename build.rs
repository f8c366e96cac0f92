//! Names the back ends of the target for `cfg`. It probes nothing, compiles nothing and writes nothing.

use std::env::var;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(isa_x86, isa_neon, isa_wasm)");
    if var("CARGO_FEATURE_SIMD").is_err() {
        return;
    }
    let arch = var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let features = var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    let has = |name: &str| features.split(',').any(|f| f == name);
    if arch == "x86_64" {
        println!("cargo:rustc-cfg=isa_x86");
    }
    if arch == "aarch64" && has("neon") {
        println!("cargo:rustc-cfg=isa_neon");
    }
    if arch == "wasm32" && has("simd128") {
        println!("cargo:rustc-cfg=isa_wasm");
    }
}
