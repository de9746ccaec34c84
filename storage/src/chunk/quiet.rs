//! How the types of a chunk print.

/// Says how much there is, never what: a reading is health data, and what can be printed will one day be logged.
macro_rules! quiet_debug {
    ($($name:ident: $($field:ident = $of:expr),+;)*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let it = self;
                f.debug_struct(stringify!($name))
                    $(.field(stringify!($field), &$of(it)))+
                    .finish_non_exhaustive()
            }
        }
    )*};
}
pub(super) use quiet_debug;
