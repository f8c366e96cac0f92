//! Seconds, from some moment on.
#![allow(unsafe_code)]

use std::sync::OnceLock;
use std::time::Instant;

/// Time that passes for everybody.
pub fn on_the_wall() -> f64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64()
}

/// Time that this thread was given: it stands still while others have the processor.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
pub fn of_thread() -> f64 {
    const THREAD: i32 = 3; // CLOCK_THREAD_CPUTIME_ID
    #[repr(C)]
    struct Time {
        seconds: i64,
        nanos: i64,
    }
    extern "C" {
        fn clock_gettime(clock: i32, time: *mut Time) -> i32;
    }
    let mut time = Time { seconds: 0, nanos: 0 };
    // SAFETY: the C library's function; on 64-bit Linux its `timespec` is two 64-bit numbers, and `time` outlives the call.
    let code = unsafe { clock_gettime(THREAD, &mut time) };
    assert_eq!(code, 0, "no clock for threads");
    time.seconds as f64 + 1e-9 * time.nanos as f64
}

/// Elsewhere the clock on the wall has to do.
#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
pub fn of_thread() -> f64 {
    on_the_wall()
}
