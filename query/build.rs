//! The page lies in `ui/dist`, where Node has built it; without it everything else works, and
//! `flowtap serve` says what is missing. This only has cargo look again when the page changes.

fn main() {
    let page = std::path::Path::new("../ui/dist");
    println!("cargo:rerun-if-changed=build.rs");
    // A path that is not there would have cargo build again each time.
    println!("cargo:rerun-if-changed={}", if page.exists() { "../ui/dist" } else { "../ui" });
}
