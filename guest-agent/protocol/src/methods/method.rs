//! What a method is, and the macros that make them and [`Request`] from lists. No
//! method is named here.

use serde::{Serialize, de::DeserializeOwned};

use super::Request;

/// A call and the type of its reply.
pub trait Method: Serialize {
    /// What comes back in the first frame when it succeeds.
    type Reply: Serialize + DeserializeOwned;
    /// Its name on the wire, for logs.
    const NAME: &'static str;
    /// The call as it travels.
    fn into_request(self) -> Request;
}

/// Makes a type for each method, and its [`Method`].
macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident : $type:ty),* $(,)? } -> $reply:ty;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Serialize, Deserialize)]
            pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

            impl Method for $name {
                type Reply = $reply;
                const NAME: &'static str = stringify!($name);
                fn into_request(self) -> Request { Request::$name(self) }
            }
        )*
    };
}

/// Makes [`Request`] of the methods of each module. One that is not named here cannot
/// be sent: its [`Method`] does not compile.
macro_rules! requests {
    ($($module:ident { $($name:ident),* $(,)? })*) => {
        $(pub use self::$module::{$($name),*};)*

        /// Any call, as it travels: `{"method": "ContainerStart", "params": {…}}`.
        #[derive(Debug, Clone, Serialize, Deserialize)]
        #[serde(tag = "method", content = "params")]
        pub enum Request {
            $($(
                #[doc = concat!("[`", stringify!($name), "`]")]
                $name($name),
            )*)*
        }

        impl Request {
            /// The method's name, for logs.
            pub fn name(&self) -> &'static str {
                match self { $($(Self::$name(_) => stringify!($name),)*)* }
            }
        }
    };
}
