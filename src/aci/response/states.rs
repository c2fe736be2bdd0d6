//! Azure's names of states.
//!
//! In: a name as text, in any case. Out: the enum variant; an unknown name is kept as it is.

use serde::Deserialize;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
        #[serde(from = "String")]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
            /// A name that this version does not know.
            Other(String),
        }

        impl $name {
            /// The name as Azure writes it.
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
    /// The provisioning state of a group. The documentation of 2025-11 lists the first six states and asks clients
    /// not to rely on the intermediate ones. The others appear in issues and in other clients.
    Provisioning {
        /// Azure is allocating a machine and the network.
        Pending,
        /// Azure is creating volumes and the IP address.
        Creating,
        /// Everything is allocated. This says nothing about whether the containers run.
        Succeeded,
        /// A probe or the machine fails.
        Unhealthy,
        /// Azure is moving the group to another machine; its IP address may change.
        Repairing,
        /// Azure could not start the group. It keeps trying, and keeps billing the group.
        Failed,
        /// Azure is changing the group.
        Updating,
        /// Azure is deleting the group.
        Deleting,
        /// The operation was canceled.
        Canceled,
    }
}

words! {
    /// The state of a group's containers as a whole.
    GroupState {
        /// They are not running yet.
        Pending,
        /// They are running.
        Running,
        /// The group was stopped in Azure.
        Stopped,
        /// They have all ended with exit code 0 (restart policy `Never` or `OnFailure`).
        Succeeded,
        /// They have all ended, at least one of them with an error (restart policy `Never`).
        Failed,
    }
}

words! {
    /// The state of a container.
    ContainerState {
        /// It is running.
        Running,
        /// It waits for its start or restart.
        Waiting,
        /// It has ended.
        Terminated,
    }
}

words! {
    /// The state of an asynchronous operation.
    OperationState {
        /// It is still running.
        Pending,
        /// It succeeded.
        Succeeded,
        /// It failed.
        Failed,
        /// It was canceled.
        Canceled,
    }
}
