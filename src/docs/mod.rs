//! The documents that README.md links to, so that `cargo doc` shows all of them. Only rustdoc reads this file.
//!
//! In the files, links lead to other files. Here the definitions of the same links come first, and the first one
//! counts: they lead to pages of this site.

macro_rules! pages {
    ($($name:ident = $file:literal,)*) => {$(
        #[doc = "[readme]: crate::docs::readme"]
        #[doc = "[install]: crate::docs::install"]
        #[doc = "[operations]: crate::docs::operations"]
        #[doc = "[triggers]: crate::docs::triggers"]
        #[doc = "[networking]: crate::docs::networking"]
        #[doc = "[kubectl]: crate::docs::kubectl"]
        #[doc = "[coexistence]: crate::docs::coexistence"]
        #[doc = "[reference]: crate::docs::reference"]
        #[doc = "[limits]: crate::docs::reference#what-keeps-a-pod-off-aci"]
        #[doc = "[accept]: crate::docs::reference#losses-that-a-pool-accepts"]
        #[doc = "[ready]: crate::docs::reference#how-ready-is-decided"]
        #[doc = "[fields]: crate::api::reference"]
        #[doc = "[pod-fields]: crate::aci::translate::field_table"]
        #[doc = "[coverage]: crate::docs::coverage"]
        #[doc = "[design]: crate::docs::design"]
        #[doc = "[glossary]: crate::docs::glossary"]
        #[doc = "[emulator]: crate::docs::emulator"]
        #[doc = "[tests]: crate::docs::tests"]
        #[doc = ""]
        #[doc = include_str!($file)]
        pub mod $name {}
    )*};
}

pages! {
    readme = "../../README.md",
    install = "../../config/README.md",
    operations = "operations.md",
    triggers = "triggers.md",
    networking = "networking.md",
    kubectl = "kubectl.md",
    coexistence = "coexistence.md",
    reference = "reference.md",
    coverage = "coverage.md",
    design = "design.md",
    glossary = "glossary.md",
    emulator = "../emulator/README.md",
    tests = "../../tests/README.md",
}
