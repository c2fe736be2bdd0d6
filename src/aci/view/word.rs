//! The words by which the service names states. One that nobody knows yet is kept as it came.

use serde::Deserialize;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
        #[serde(from = "String")]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
            /// A word that this version does not know.
            Other(String),
        }

        impl $name {
            /// The word itself.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => stringify!($variant),)*
                    Self::Other(word) => word,
                }
            }
        }

        impl From<String> for $name {
            fn from(word: String) -> Self {
                $(if word.eq_ignore_ascii_case(stringify!($variant)) {
                    return Self::$variant;
                })*
                Self::Other(word)
            }
        }
    };
}

words! {
    /// How far the service has got with making a group what was asked for. The documentation of
    /// 2025-11 names the first six and asks not to depend on those in between; the others were seen
    /// in issues and in other clients.
    Provisioning {
        /// A machine and the network are being found.
        Pending,
        /// Volumes and address are being made.
        Creating,
        /// Everything is there; what runs in it is another question.
        Succeeded,
        /// A probe fails, or the machine does.
        Unhealthy,
        /// It is being moved to another machine; its address may change.
        Repairing,
        /// It could not be made. The service goes on trying, and billing.
        Failed,
        /// A change is being made.
        Updating,
        /// It is being deleted.
        Deleting,
        /// Someone called the operation off.
        Canceled,
    }
}

words! {
    /// Whether a group's containers run.
    GroupState {
        /// Not yet.
        Pending,
        /// They do.
        Running,
        /// Someone stopped the group.
        Stopped,
        /// They have all ended well (restart policy `Never` or `OnFailure`).
        Succeeded,
        /// They have all ended, not all of them well (restart policy `Never`).
        Failed,
    }
}

words! {
    /// Whether a container runs.
    ContainerState {
        /// It does.
        Running,
        /// Not yet, or not again.
        Waiting,
        /// It has ended.
        Terminated,
    }
}

words! {
    /// How far an operation has got.
    OperationState {
        /// It goes on.
        Pending,
        /// It ended well.
        Succeeded,
        /// It did not.
        Failed,
        /// Someone called it off.
        Canceled,
    }
}
