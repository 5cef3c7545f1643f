//! The guide: one page for each task, with examples that compile.
//!
//! Begin with [`getting_started`]. The other pages stand alone. The [front page](crate#guide) lists them by subject.

/// Declares the pages, each a Markdown file with the name of its module.
macro_rules! pages {
    ($($page:ident)*) => {
        $(
            pub mod $page {
                #![doc = include_str!(concat!("guide/", stringify!($page), ".md"))]
                // Links in the page name what the crate root exports. They are resolved in this module, since the
                // page is its inner documentation.
                #[allow(unused_imports, reason = "only documentation uses them")]
                use crate::*;
            }
        )*
    };
}

pages! {
    getting_started
    where_data_lives
    signing_in
    lifetime
    parallel_requests
    several_types
    flash_messages
    csrf
    devices
    api_tokens
    websockets
    middleware
    errors
    commit_last
    testing
    keys_and_schemas
    many_nodes
    stores
    options
    security
    does_not_compile
    cookie_not_kept
    moving_in
    from_tower_sessions
    from_actix_session
    from_koa_session
    from_egg_session
    from_express_session
    from_cookie_session
    from_cookie_jars
}
