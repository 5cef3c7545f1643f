//! What the crate logs, for tests to read.

use std::{
    io,
    sync::{Arc, Mutex, Once},
};

use tracing::{Level, level_filters::LevelFilter};

/// What warnings of managers that share a kind have in common. All tests of a process share the registry
/// of managers behind them.
const OF_OTHER_MANAGERS: [&str; 2] = ["open each other's sessions", "are of one kind"];

/// What is logged on this thread from its start on.
pub struct Log {
    text: Buffer,
    _default: tracing::subscriber::DefaultGuard,
}

impl Log {
    /// Starts a log of warnings and errors.
    pub fn start() -> Self {
        Self::of(Level::WARN)
    }

    pub fn of(level: Level) -> Self {
        // While there is one subscriber only, a thread without any decides for all that an event is not wanted.
        static SILENT: Once = Once::new();
        SILENT.call_once(|| {
            let silent = tracing_subscriber::fmt().with_max_level(LevelFilter::OFF).finish();
            tracing::subscriber::set_global_default(silent).unwrap();
        });
        let text = Buffer::default();
        let writer = text.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        Self { text, _default: tracing::subscriber::set_default(subscriber) }
    }

    /// Returns all that was logged since the last call.
    pub fn text(&self) -> String {
        let text = std::mem::take(&mut *self.text.0.lock().unwrap());
        String::from_utf8(text).unwrap()
    }

    /// Returns the lines of this crate since the last call, without what `build` says of managers that other
    /// tests have.
    pub fn take(&self) -> Vec<String> {
        let mut lines = self.take_all();
        lines.retain(|line| !OF_OTHER_MANAGERS.iter().any(|part| line.contains(part)));
        lines
    }

    /// Returns the lines of this crate since the last call.
    pub fn take_all(&self) -> Vec<String> {
        let text = self.text();
        let ours = text.lines().filter(|line| line.contains(" axum_typed_session"));
        ours.map(str::to_owned).collect()
    }
}

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
