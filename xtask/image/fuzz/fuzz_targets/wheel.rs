//! Any bytes as a wheel: a layer or an error, never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = mlflow_image::fuzzing::wheel(bytes);
});
