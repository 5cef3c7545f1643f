//! The targets that libFuzzer runs.

#[path = "../../tests/fuzz/targets/mod.rs"]
mod targets;

/// Gives an input to the target of this name.
///
/// # Panics
///
/// Panics where the crate breaks a promise, which is what libFuzzer looks for.
pub fn run(name: &str, data: &[u8]) {
    let target = targets::TARGETS.into_iter().find(|(target, _)| *target == name);
    target.expect("a target of this name").1(data);
}
