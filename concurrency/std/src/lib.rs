//! The standard library, with the locks and atomic numbers of shuttle in the place of its own.

pub use std::*;

pub mod sync {
    pub use std::sync::*;

    pub use shuttle::sync::{Mutex, MutexGuard};

    pub mod atomic {
        // `AtomicU64` stays, since statics have it, and they outlive a run.
        pub use std::sync::atomic::*;

        pub use shuttle::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize};
    }
}

pub mod thread {
    use std::io;

    pub use std::thread::*;

    pub use shuttle::thread::yield_now;

    /// Starts no thread: the thread that cleans up would wait for time, and no run has any.
    #[derive(Debug, Default)]
    pub struct Builder;

    impl Builder {
        pub fn new() -> Self {
            Self
        }

        pub fn name(self, _: String) -> Self {
            self
        }

        /// Drops the function.
        ///
        /// # Errors
        ///
        /// Always.
        pub fn spawn<F: FnOnce() -> R, R>(self, _: F) -> io::Result<JoinHandle<R>> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }
}
