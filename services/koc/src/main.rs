// Temporary: the `import` command that calls this module is wired when the registry's client side lands.
#[allow(dead_code, unused_imports)]
mod import;

fn main() {}
