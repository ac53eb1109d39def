//! What a method is, and the macro that makes all of them from their list in
//! [`methods`](super). No method is named here.

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

/// Makes [`Request`], a type for each method, and its [`Method`].
macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident : $type:ty),* $(,)? } -> $reply:ty;)*) => {
        /// Any call, as it travels: `{"method": "ContainerStart", "params": {…}}`.
        #[derive(Debug, Clone, Serialize, Deserialize)]
        #[serde(tag = "method", content = "params")]
        pub enum Request {
            $($(#[$doc])* $name($name),)*
        }

        impl Request {
            /// The method's name, for logs.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$name(_) => stringify!($name),)* }
            }
        }

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
