//! A program that answers each line of its input with a line.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::Value;

/// Gives all requests to the program, and returns its lines.
pub fn answers(program: &mut Command, requests: impl Iterator<Item = Value>) -> Vec<String> {
    let requests: Vec<_> = requests.map(|request| format!("{request}\n")).collect();
    let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let text = requests.concat();
    // Beside it, since a program that prints before it has read everything would wait for its reader.
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{program:?} failed");
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = lines.lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), requests.len(), "{program:?}");
    lines
}
