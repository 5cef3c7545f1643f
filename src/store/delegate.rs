/// Implements methods of [`SessionStore`](crate::SessionStore) by calls of the same methods of another store.
///
/// Use it in a store that wraps another store, such as for metrics or for encryption. Call it inside the `impl`
/// block:
///
/// | call | methods |
/// |---|---|
/// | `(all => self.inner)` | all methods |
/// | `(all except save, touch => self.inner)` | all methods except these |
/// | `(load, destroy => self.inner)` | these methods |
///
/// The inner store is a field of `self`, or the reference that a closure `|self| ..` returns. A method that you
/// neither write nor delegate keeps the default of the trait.
///
/// # Example
///
/// Add `async |method, call| ..` to run code around every call of an async method. `method` is the name of the
/// method, and `call` is the future of the inner store.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use axum_typed_session::{SessionStore, delegate_session_store};
///
/// struct Counting<S> { inner: S, calls: AtomicU64 }
///
/// impl<S: SessionStore> SessionStore for Counting<S> {
///     delegate_session_store!(all => self.inner, async |_method, call| {
///         self.calls.fetch_add(1, Ordering::Relaxed);
///         call.await
///     });
/// }
/// ```
///
/// A store with a method of its own:
///
/// ```
/// # use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
/// # use axum_typed_session::{SessionStore, StoreError, StoreKey, delegate_session_store};
/// # use axum_typed_session::store::{Record, SaveOutcome, Write};
/// struct Largest<S> { inner: S, bytes: AtomicUsize }
///
/// #[async_trait::async_trait]
/// impl<S: SessionStore> SessionStore for Largest<S> {
///     async fn save(
///         &self, key: &StoreKey, record: &Record, write: Write<'_>,
///     ) -> Result<SaveOutcome, StoreError> {
///         self.bytes.fetch_max(record.payload().len(), Relaxed);
///         self.inner.save(key, record, write).await
///     }
///
///     delegate_session_store!(all except save => self.inner);
/// }
/// ```
#[doc(alias("wrap", "decorator", "middleware", "CachingSessionStore"))]
#[macro_export]
macro_rules! delegate_session_store {
    (all => $($to:tt)+) => {
        $crate::delegate_session_store! { all except => $($to)+ }
    };
    (all except $($own:ident),* => $($to:tt)+) => {
        $crate::__delegate_session_store! {
            @to [$($to)+] @except [$($own)*]
            load save destroy touch destroy_at delete_expired take_expired returns_expired list lists_sessions
            indexes_owners survives_restart find_by_owner destroy_by_owner
        }
    };
    ($($method:ident),+ => $($to:tt)+) => {
        $crate::__delegate_session_store! { @to [$($to)+] @except [] $($method)+ }
    };
}

/// The steps of [`delegate_session_store!`](crate::delegate_session_store), apart so that its page shows none of them.
#[doc(hidden)]
#[macro_export]
macro_rules! __delegate_session_store {
    // Finds the store and the code around a call.
    (@to [$self:ident . $field:tt $(, $($around:tt)+)?] $($methods:tt)+) => {
        $crate::__delegate_session_store! { @each [[$self] [&$self.$field] $($($around)+)?] $($methods)+ }
    };
    (@to [|$self:ident| $store:expr $(, $($around:tt)+)?] $($methods:tt)+) => {
        $crate::__delegate_session_store! { @each [[$self] [$store] $($($around)+)?] $($methods)+ }
    };
    (@each $to:tt @except $own:tt $($method:ident)+) => {
        $( $crate::__delegate_session_store! { @unless $own $method $to } )+
    };

    // Writes a method, unless the store writes it itself.
    (@unless [load $($own:ident)*] load $to:tt) => {};
    (@unless [save $($own:ident)*] save $to:tt) => {};
    (@unless [destroy $($own:ident)*] destroy $to:tt) => {};
    (@unless [touch $($own:ident)*] touch $to:tt) => {};
    (@unless [destroy_at $($own:ident)*] destroy_at $to:tt) => {};
    (@unless [delete_expired $($own:ident)*] delete_expired $to:tt) => {};
    (@unless [take_expired $($own:ident)*] take_expired $to:tt) => {};
    (@unless [returns_expired $($own:ident)*] returns_expired $to:tt) => {};
    (@unless [list $($own:ident)*] list $to:tt) => {};
    (@unless [lists_sessions $($own:ident)*] lists_sessions $to:tt) => {};
    (@unless [indexes_owners $($own:ident)*] indexes_owners $to:tt) => {};
    (@unless [survives_restart $($own:ident)*] survives_restart $to:tt) => {};
    (@unless [find_by_owner $($own:ident)*] find_by_owner $to:tt) => {};
    (@unless [destroy_by_owner $($own:ident)*] destroy_by_owner $to:tt) => {};
    (@unless [$other:ident $($own:ident)*] $method:ident $to:tt) => {
        $crate::__delegate_session_store! { @unless [$($own)*] $method $to }
    };
    (@unless [] load $to:tt) => {
        $crate::__delegate_session_store! {
            @fn load $to ['key] (key: &'key $crate::store::StoreKey) -> ::core::option::Option<$crate::store::Record>
        }
    };
    (@unless [] save $to:tt) => {
        $crate::__delegate_session_store! {
            @fn save $to ['key 'record 'loaded]
            (
                key: &'key $crate::store::StoreKey,
                record: &'record $crate::store::Record,
                write: $crate::store::Write<'loaded>
            )
            -> $crate::store::SaveOutcome
        }
    };
    (@unless [] destroy $to:tt) => {
        $crate::__delegate_session_store! { @fn destroy $to ['key] (key: &'key $crate::store::StoreKey) -> () }
    };
    (@unless [] touch $to:tt) => {
        $crate::__delegate_session_store! {
            @fn touch $to ['key]
            (key: &'key $crate::store::StoreKey, version: $crate::store::Version, expires_at: $crate::store::Timestamp)
            -> $crate::store::SaveOutcome
        }
    };
    (@unless [] destroy_at $to:tt) => {
        $crate::__delegate_session_store! {
            @fn destroy_at $to ['key] (key: &'key $crate::store::StoreKey, version: $crate::store::Version)
            -> $crate::store::SaveOutcome
        }
    };
    (@unless [] delete_expired $to:tt) => {
        $crate::__delegate_session_store! { @fn delete_expired $to [] (limit: u32) -> u64 }
    };
    (@unless [] take_expired $to:tt) => {
        $crate::__delegate_session_store! {
            @fn take_expired $to [] (limit: u32)
            -> ::std::vec::Vec<($crate::store::StoreKey, $crate::store::Record)>
        }
    };
    (@unless [] list $to:tt) => {
        $crate::__delegate_session_store! {
            @fn list $to ['after] (after: ::core::option::Option<&'after $crate::store::Cursor>, limit: u32)
            -> $crate::store::KeyPage
        }
    };
    (@unless [] returns_expired $to:tt) => {
        $crate::__delegate_session_store! { @can returns_expired $to }
    };
    (@unless [] lists_sessions $to:tt) => {
        $crate::__delegate_session_store! { @can lists_sessions $to }
    };
    (@unless [] indexes_owners $to:tt) => {
        $crate::__delegate_session_store! { @can indexes_owners $to }
    };
    (@unless [] survives_restart $to:tt) => {
        $crate::__delegate_session_store! { @can survives_restart $to }
    };
    (@can $method:ident [[$self:ident] [$store:expr] $($around:tt)*]) => {
        fn $method(&$self) -> bool {
            $crate::store::SessionStore::$method($store)
        }
    };
    (@unless [] find_by_owner $to:tt) => {
        $crate::__delegate_session_store! {
            @fn find_by_owner $to ['owner] (owner: &'owner $crate::store::OwnerKey)
            -> ::std::vec::Vec<$crate::store::StoreKey>
        }
    };
    (@unless [] destroy_by_owner $to:tt) => {
        $crate::__delegate_session_store! {
            @fn destroy_by_owner $to ['owner 'keep]
            (owner: &'owner $crate::store::OwnerKey, keep: ::core::option::Option<&'keep $crate::store::StoreKey>) -> u64
        }
    };

    // Writes the signature that `async_trait` makes of an `async fn`.
    (
        @fn $method:ident [[$self:ident] [$store:expr] $($around:tt)*]
        [$($life:lifetime)*] ($($argument:ident: $type:ty),+) -> $answer:ty
    ) => {
        fn $method<'this, $($life,)* 'async_trait>(
            &'this $self,
            $($argument: $type),+
        ) -> ::core::pin::Pin<::std::boxed::Box<
            dyn ::core::future::Future<Output = ::core::result::Result<$answer, $crate::store::StoreError>>
                + ::core::marker::Send
                + 'async_trait,
        >>
        where
            'this: 'async_trait,
            $($life: 'async_trait,)*
            Self: 'async_trait,
        {
            $crate::__delegate_session_store! {
                @call $method ($crate::store::SessionStore::$method($store, $($argument),+)) $($around)*
            }
        }
    };
    (@call $method:ident $answer:tt) => { $answer };
    (@call $method:ident $answer:tt async |$operation:pat_param, $call:pat_param| $body:expr) => {
        ::std::boxed::Box::pin(async move {
            let ($operation, $call) = (::core::stringify!($method), $answer);
            $body
        })
    };
}

pub(crate) use delegate_session_store;
