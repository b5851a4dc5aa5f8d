// Temporary: the `import` command that calls this module is wired when the registry's client side lands.
#[allow(dead_code)]
mod import;

fn main() {}
