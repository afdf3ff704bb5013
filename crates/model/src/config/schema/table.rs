//! The macro that declares the keys of one section.

/// Declares a section of the file, once:
///
/// ```text
/// table! {
///     /// The program.
///     #[derive(Debug, Clone, PartialEq, Eq)]
///     pub struct Dataplane: Default as RawDataplane, DataplaneKeys, ReadDataplane {
///         /// Worker threads.
///         pub workers: Option<u8> = None => key().range(1, 64).absent("one per core").example("2").at_start();
///     }
/// }
/// ```
///
/// A key is `/// meaning`, `name: type as codec = default => facts;`. Without `as`, the type is its own [`Codec`];
/// without a default the key is required, or absent if the type is an `Option`. A key without `pub` is only in the
/// file: the validation makes a value of `parts { ... }` from it. `tables { ... }` are the lists below this one.
///
/// The four names are: the struct that other crates read; the keys as the file has them, each with its place; the
/// declarations as values (`Dataplane::KEYS.workers`); and the values of the `pub` keys while the section is judged,
/// where `None` stands for a mistake that is reported already.
///
/// [`Codec`]: super::Codec
macro_rules! table {
    (
        $(#[$meta:meta])*
        pub struct $typed:ident $(: $default:ident)? as $raw:ident, $keys:ident, $read:ident { $($body:tt)* }
        $( parts { $($parts:tt)* } )?
        $( tables { $($tables:tt)* } )?
    ) => {
        $crate::config::schema::table! { @file $typed $raw $keys [$($($tables)*)?] $($body)* }
        $crate::config::schema::table! {
            @typed [$(#[$meta])* $typed $raw $read [$($default)?] [$($($parts)*)?]] [] $($body)*
        }
    };

    // What the file has: all keys.
    (@file $typed:ident $raw:ident $keys:ident [$($table:ident: $table_ty:ty,)*]
        $(
            $(#[doc = $doc:literal])+
            $vis:vis $key:ident: $ty:ty $(as $codec:ty)? $(= $default:expr)? => $info:expr;
        )*
    ) => {
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
        pub(crate) struct $raw {
            /// Place of the table, for errors about missing keys.
            #[serde(skip)]
            pub span: $crate::config::report::Span,
            $(
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $key: $crate::config::scope::Opt<
                    <$crate::config::schema::codec!($ty $(as $codec)?) as $crate::config::schema::Codec>::Raw,
                >,
            )*
            $(
                #[serde(skip_serializing_if = "Vec::is_empty")]
                pub $table: Vec<$table_ty>,
            )*
        }

        $(
            // The codec has to yield the type that is declared.
            const _: fn(
                <$crate::config::schema::codec!($ty $(as $codec)?) as $crate::config::schema::Codec>::Value,
            ) -> $ty = |value| value;
        )*

        pub(crate) struct $keys {
            $( pub $key: $crate::config::schema::Key<$crate::config::schema::codec!($ty $(as $codec)?)>, )*
        }

        impl $typed {
            /// The declarations.
            pub(crate) const KEYS: $keys = $keys {
                $(
                    $key: $crate::config::schema::Key {
                        info: $info.of::<$crate::config::schema::codec!($ty $(as $codec)?)>(
                            $crate::config::schema::key_name(stringify!($key)),
                            concat!($($doc),+),
                            $crate::config::schema::table!(@rendered [$ty $(as $codec)?] $($default)?),
                        ),
                        default: $crate::config::schema::table!(@default $($default)?),
                    },
                )*
            };
        }

        impl $crate::config::schema::RawTable for $raw {
            const KEYS: &'static [$crate::config::schema::KeyInfo] = &[$( $typed::KEYS.$key.info ),*];
            const TABLES: &'static [&'static str] = &[$( stringify!($table) ),*];

            fn present(&self) -> Vec<(&'static $crate::config::schema::KeyInfo, $crate::config::report::Span)> {
                let spans = [$( self.$key.as_ref().map(|v| v.span()) ),*];
                Self::KEYS.iter().zip(spans).filter_map(|(key, span)| Some((key, span?))).collect()
            }

            fn read_table(
                mut table: toml::de::DeTable<'_>,
                span: $crate::config::report::Span,
                path: &$crate::config::report::Path<'_>,
                report: &mut $crate::config::report::Report<'_>,
            ) -> Self {
                let out = Self {
                    span,
                    $( $key: $crate::config::schema::take(&mut table, &$typed::KEYS.$key.info, path, report), )*
                    $( $table: $crate::config::schema::take_table(&mut table, stringify!($table), path, report), )*
                };
                $crate::config::schema::reject_unknown::<Self>(table, path, report);
                out
            }
        }
    };
    (@default) => { None };
    (@default $default:expr) => { Some(|| $default) };
    (@rendered [$($codec:tt)*]) => { None };
    (@rendered [$($codec:tt)*] $default:expr) => {
        Some(|| $crate::config::schema::rendered::<$crate::config::schema::codec!($($codec)*)>(&$default))
    };

    // What other crates read: the `pub` keys, picked one by one.
    (@typed $head:tt [$($done:tt)*]
        $(#[doc = $doc:literal])+
        pub $key:ident: $ty:ty $(as $codec:ty)? $(= $default:expr)? => $info:expr;
        $($rest:tt)*
    ) => {
        $crate::config::schema::table! {
            @typed $head [$($done)* {[$($doc)+] $key [$ty] [$($default)?]}] $($rest)*
        }
    };
    (@typed $head:tt $done:tt
        $(#[doc = $doc:literal])+
        $key:ident: $ty:ty $(as $codec:ty)? $(= $default:expr)? => $info:expr;
        $($rest:tt)*
    ) => {
        $crate::config::schema::table! { @typed $head $done $($rest)* }
    };
    (@typed
        [
            $(#[$meta:meta])* $typed:ident $raw:ident $read:ident [$($default:ident)?]
            [$( $(#[$part_meta:meta])* $part:ident: $part_ty:ty, )*]
        ]
        [$( {[$($doc:literal)+] $key:ident [$ty:ty] [$($value:expr)?]} )*]
    ) => {
        $(#[$meta])*
        pub struct $typed {
            $( $(#[doc = $doc])+ pub $key: $ty, )*
            $( $(#[$part_meta])* pub $part: $part_ty, )*
        }

        pub(crate) struct $read {
            $( pub $key: Option<$ty>, )*
        }

        impl $raw {
            /// The `pub` keys by their declarations; the validation does the rest.
            pub(crate) fn read(&self, s: &mut $crate::config::scope::Scope<'_, '_>) -> $read {
                $read { $( $key: $typed::KEYS.$key.read(s, &self.$key), )* }
            }
        }

        impl $read {
            /// `None` if a key was wrong.
            pub(crate) fn finish(self, $($part: $part_ty),*) -> Option<$typed> {
                Some($typed { $( $key: self.$key?, )* $($part,)* })
            }
        }

        impl $typed {
            /// The `pub` keys as the file writes them.
            pub(crate) fn raw_keys(&self) -> $raw {
                $raw { $( $key: $typed::KEYS.$key.write(&self.$key), )* ..Default::default() }
            }
        }

        $crate::config::schema::table! { @impl_default [$($default)?] $typed $({$key [$($value)?]})* }
    };
    (@impl_default [] $($rest:tt)*) => {};
    (@impl_default [Default] $typed:ident $({$key:ident [$value:expr]})*) => {
        impl Default for $typed {
            fn default() -> Self {
                $typed { $( $key: $value, )* }
            }
        }

        impl $typed {
            /// The keys that differ from `other` and need a restart.
            pub(crate) fn at_start_changes(&self, other: &Self) -> Vec<&'static str> {
                let mut out = Vec::new();
                $(
                    if $typed::KEYS.$key.info.at_start && self.$key != other.$key {
                        out.push($typed::KEYS.$key.info.name);
                    }
                )*
                out
            }
        }
    };
}
pub(crate) use table;

/// The codec of a key: the type itself unless another is named.
macro_rules! codec {
    ($ty:ty) => {
        $ty
    };
    ($ty:ty as $codec:ty) => {
        $codec
    };
}
pub(crate) use codec;

/// Declares the struct of all sections, and the list of their declarations.
macro_rules! sections {
    (
        pub(crate) struct $raw:ident { $( $field:ident: $field_ty:ty, )* }
        pub const $sections:ident: [$( $kind:ident $name:literal $section_ty:ty, )*]
    ) => {
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
        pub(crate) struct $raw {
            $(
                #[serde(skip_serializing_if = "crate::config::schema::Tables::is_absent")]
                pub $field: $field_ty,
            )*
        }

        impl $crate::config::schema::RawTable for $raw {
            const KEYS: &'static [$crate::config::schema::KeyInfo] = &[];
            const TABLES: &'static [&'static str] = &[$( stringify!($field) ),*];

            fn read_table(
                mut table: toml::de::DeTable<'_>,
                _span: $crate::config::report::Span,
                path: &$crate::config::report::Path<'_>,
                report: &mut $crate::config::report::Report<'_>,
            ) -> Self {
                let out = Self {
                    $( $field: $crate::config::schema::take_table(&mut table, stringify!($field), path, report), )*
                };
                $crate::config::schema::reject_unknown::<Self>(table, path, report);
                out
            }
        }

        /// Every section with the declarations of its keys, in the order of the manual.
        pub const $sections: &[$crate::config::schema::Section] = &[
            $( $crate::config::schema::Section {
                name: $name,
                list: $crate::config::schema::sections!(@$kind),
                keys: <$section_ty as $crate::config::schema::RawTable>::KEYS,
            }, )*
        ];
    };
    (@one) => { false };
    (@many) => { true };
}
pub(crate) use sections;
