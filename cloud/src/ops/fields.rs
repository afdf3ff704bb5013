//! Fields that have the same name in a request, an object and an answer are copied by name.

/// The value of a field as the type of the field that it goes to: what is absent there is a default here.
pub trait Give<T> {
    fn give(self) -> T;
}

impl<T> Give<T> for T {
    fn give(self) -> T {
        self
    }
}

impl<T> Give<Option<T>> for T {
    fn give(self) -> Option<T> {
        Some(self)
    }
}

impl<T: Default> Give<T> for Option<T> {
    fn give(self) -> T {
        self.unwrap_or_default()
    }
}

/// A struct with the named fields of another one; behind `;` come fields with other values:
/// `copied!(rule => response::AddACLRule { acl_id, acr_id; name: other })`.
macro_rules! copied {
    ($from:expr => $to:path { $($field:ident),* $(,)? $(; $($rest:tt)*)? }) => {{
        let from = &$from;
        $to {
            $($field: $crate::ops::fields::Give::give(from.$field.clone()),)*
            $($($rest)*)?
        }
    }};
}

/// Sets the named fields of an object that the request has: `set_given!(rule, request { name, policy })`.
macro_rules! set_given {
    ($object:expr, $request:expr => { $($field:ident),* $(,)? }) => {
        $(if let Some(value) = $request.$field.clone() {
            $object.$field = $crate::ops::fields::Give::give(value);
        })*
    };
}

/// `TaskStates` of a section of a device, in the form of one operation:
/// `task_states!(device, "Dns", cx.now => describe_sag_user_dns)`.
macro_rules! task_states {
    ($device:expr, $section:expr, $now:expr => $operation:ident) => {{
        let task = $device.task_state($section, $now);
        vec![$crate::api::response::$operation::TaskStates {
            create_time: $crate::ops::fields::Give::give(task.create_time.to_string()),
            error_code: $crate::ops::fields::Give::give(task.error_code.to_owned()),
            error_message: $crate::ops::fields::Give::give(task.error_message),
            state: $crate::ops::fields::Give::give(task.state.to_owned()),
        }]
    }};
}

pub(crate) use {copied, set_given, task_states};
