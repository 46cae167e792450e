//! Links the libpq that belongs to the server we build for and finds it again at run time:
//! two libpq versions in one backend crash it (see `src/libpq/guard.rs`).
use std::path::Path;

fn main() {
    println!("cargo:rerun-if-env-changed=PGRX_PG_CONFIG_PATH");
    println!("cargo:rerun-if-env-changed=PGRX_HOME");
    let label = (15..=18)
        .map(|major| format!("pg{major}"))
        .find(|label| std::env::var_os(format!("CARGO_FEATURE_{}", label.to_uppercase())).is_some())
        .expect("one of the features pg15, pg16, pg17, pg18");
    let pgrx = pgrx_pg_config::Pgrx::from_config().expect("a pg_config for pgrx");
    let dir = pgrx.get(&label).and_then(|config| config.lib_dir()).expect("pg_config --libdir");
    // Debian's libpq5 is in the loader's default path: nothing to add there.
    if dir.join("libpq.so").exists() && !dir.starts_with("/usr/lib") && dir != Path::new("/lib") {
        println!("cargo:rustc-link-search=native={}", dir.display());
        println!("cargo:rustc-cdylib-link-arg=-Wl,-rpath,{}", dir.display());
    }
}
