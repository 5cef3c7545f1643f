# Leaves of Cargo.toml the package and the dependencies of default features, for `scripts/scheduled.sh`. Others raise
# the versions that all of them share: a driver may need a newer `tokio` than the crate does.
/^\[/ { keep = ($0 == "[package]" || $0 == "[dependencies]"); in_dependencies = ($0 == "[dependencies]") }
!keep { next }
in_dependencies && /^[a-z]/ { entry = ""; is_open = 1 }
in_dependencies && is_open {
    entry = entry $0 "\n"
    if (entry !~ /\[[^\]]*$/) {
        is_open = 0
        if (entry !~ /optional = true/) printf "%s", entry
    }
    next
}
{ print }
