//! The schemas of plain numbers and texts, for fields of other types: `#[schema(value_type = Partition)]`.

use utoipa::ToSchema;

/// The number of a partition.
#[derive(ToSchema)]
#[schema(minimum = 0, maximum = 999_999, examples(1))]
pub struct Partition(pub i32);

/// An offset in a partition.
#[derive(ToSchema)]
#[schema(minimum = 0, examples(812))]
pub struct Offset(pub i64);

/// A condition on a field of an event's JSON: `POINTER:OP:VALUE`, or `POINTER:exists`. A pointer has at most 512 bytes and 32
/// levels, a value at most 4,096 bytes.
#[derive(ToSchema)]
#[schema(
    pattern = r"^((/([^~/:]|~[01])*)*:(exists(:(true|false))?|(eq|ne|lt|gt|contains|prefix|in):[\s\S]*))?$",
    examples("/approved:eq:false")
)]
pub struct Condition(pub String);

/// A JSON Pointer to a field of an event's JSON, with at most 512 bytes and 32 levels.
#[derive(ToSchema)]
#[schema(pattern = r"^((/([^~/:%]|~[01])*)+)?$", examples("/page"))]
pub struct Pointer(pub String);
