//! The texts of errors of connecting.

use std::error::Error;

/// Returns an error and its sources in one line. The driver repeats the text of a source.
pub(super) fn one_line(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let text = error.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        source = error.source();
    }
    line
}

/// Implements `Debug` as the text of the error with its sources, since a `main` that returns the error shows that.
macro_rules! debug_is_text {
    ($error:ident) => {
        impl std::fmt::Debug for $error {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&$crate::store::connect_error::one_line(self))
            }
        }
    };
}
pub(super) use debug_is_text;
