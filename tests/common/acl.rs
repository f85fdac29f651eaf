//! A user of an Apache Kafka with ACLs, whose password and rights a test changes. rdkafka has no functions for that.

use std::ffi::{CString, c_char};
use std::ptr;

use rdkafka::admin::AdminClient;
use rdkafka::bindings as sys;
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, FromClientConfig};

pub use sys::rd_kafka_AclOperation_t as Operation;

pub const READ: Operation = Operation::RD_KAFKA_ACL_OPERATION_READ;
pub const WRITE: Operation = Operation::RD_KAFKA_ACL_OPERATION_WRITE;
pub const DESCRIBE: Operation = Operation::RD_KAFKA_ACL_OPERATION_DESCRIBE;
pub const DESCRIBE_CONFIGS: Operation = Operation::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS;

/// Makes a binding, or a filter for one: librdkafka has one type for both.
type Describe = unsafe extern "C" fn(
    sys::rd_kafka_ResourceType_t,
    *const c_char,
    sys::rd_kafka_ResourcePatternType_t,
    *const c_char,
    *const c_char,
    sys::rd_kafka_AclOperation_t,
    sys::rd_kafka_AclPermissionType_t,
    *mut c_char,
    usize,
) -> *mut sys::rd_kafka_AclBinding_t;

/// Requests that the broker creates bindings, or deletes matching ones.
type Send = unsafe extern "C" fn(
    *mut sys::rd_kafka_t,
    *mut *mut sys::rd_kafka_AclBinding_t,
    usize,
    *const sys::rd_kafka_AdminOptions_t,
    *mut sys::rd_kafka_queue_t,
);

const ANSWER_MS: i32 = 15_000;

/// A user, with the rights of an administrator to change it.
pub struct User {
    name: String,
    admin: AdminClient<DefaultClientContext>,
}

impl User {
    /// Creates a user with this password, on a broker where the caller may do everything.
    pub fn create(servers: &str, name: &str, password: &str) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", servers);
        let admin = AdminClient::from_config(&config).expect("an admin client");
        let user = User { name: name.into(), admin };
        user.set_password(password);
        user
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn set_password(&self, password: &str) {
        let name = text(&self.name);
        unsafe {
            let alteration = sys::rd_kafka_UserScramCredentialUpsertion_new(
                name.as_ptr(),
                sys::rd_kafka_ScramMechanism_t::RD_KAFKA_SCRAM_MECHANISM_SHA_256,
                4096,
                password.as_ptr(),
                password.len(),
                ptr::null(),
                0,
            );
            let client = self.admin.inner().native_ptr();
            self.ask(|queue| {
                sys::rd_kafka_AlterUserScramCredentials(client, &mut { alteration }, 1, ptr::null(), queue)
            });
            sys::rd_kafka_UserScramCredentialAlteration_destroy(alteration);
        }
    }

    pub fn grant(&self, topic: &str, operations: &[Operation]) {
        self.change(topic, operations, sys::rd_kafka_AclBinding_new, sys::rd_kafka_CreateAcls);
    }

    pub fn revoke(&self, topic: &str, operations: &[Operation]) {
        self.change(topic, operations, sys::rd_kafka_AclBindingFilter_new, sys::rd_kafka_DeleteAcls);
    }

    /// Describes the user's right to each operation with `describe`, and sends that with `send`.
    fn change(&self, topic: &str, operations: &[Operation], describe: Describe, send: Send) {
        let (topic, principal, host) = (text(topic), text(&format!("User:{}", self.name)), text("*"));
        for operation in operations {
            unsafe {
                let acl = describe(
                    sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC,
                    topic.as_ptr(),
                    sys::rd_kafka_ResourcePatternType_t::RD_KAFKA_RESOURCE_PATTERN_LITERAL,
                    principal.as_ptr(),
                    host.as_ptr(),
                    *operation,
                    sys::rd_kafka_AclPermissionType_t::RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW,
                    ptr::null_mut(),
                    0,
                );
                assert!(!acl.is_null(), "no ACL");
                let client = self.admin.inner().native_ptr();
                self.ask(|queue| send(client, &mut { acl }, 1, ptr::null(), queue));
                sys::rd_kafka_AclBinding_destroy(acl);
            }
        }
    }

    /// Sends a request and waits for its answer.
    fn ask(&self, send: impl FnOnce(*mut sys::rd_kafka_queue_t)) {
        unsafe {
            let queue = sys::rd_kafka_queue_new(self.admin.inner().native_ptr());
            send(queue);
            let event = sys::rd_kafka_queue_poll(queue, ANSWER_MS);
            assert!(!event.is_null(), "no answer");
            let error = sys::rd_kafka_event_error(event);
            assert_eq!(error, sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
            sys::rd_kafka_event_destroy(event);
            sys::rd_kafka_queue_destroy(queue);
        }
    }
}

fn text(text: &str) -> CString {
    CString::new(text).expect("no NUL")
}
