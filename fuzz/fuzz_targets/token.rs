#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| axum_typed_session_fuzz::run("token", data));
