//! What a panic does in an archive without another Rust runtime: it cannot happen, and feature `no-panic-proof` turns
//! this sentence into something the linker checks.

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    #[cfg(feature = "no-panic-proof")]
    {
        unsafe extern "C" {
            fn subquad_panic_is_reachable() -> !;
        }
        // SAFETY: defined nowhere; an archive that still refers to it does not link.
        unsafe { subquad_panic_is_reachable() }
    }
    #[cfg(not(feature = "no-panic-proof"))]
    loop {
        core::hint::spin_loop();
    }
}
