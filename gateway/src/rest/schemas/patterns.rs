//! What texts look like, as regular expressions (ECMA-262) of the document.
//! Each says what a parser in `proto` reads; a test holds them beside it.

/// Tenants and pools.
pub(in crate::rest) const LOWER_NAME: &str = "^[a-z0-9][a-z0-9-]{0,62}$";
/// Steps and inputs.
pub(in crate::rest) const NAME: &str = "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$";
/// Licenses.
pub(in crate::rest) const LICENSE: &str = "^[A-Za-z0-9_][A-Za-z0-9_.@-]{0,62}$";
pub(in crate::rest) const JOB_ID: &str = "^([a-z0-9][a-z0-9-]{0,62}-)?0*[1-9][0-9]{0,18}$";
/// A whole job, one task of its array, or each task's like.
pub(in crate::rest) const AFTER: &str = "^((ok|notok|any):([a-z0-9][a-z0-9-]{0,62}-)?0*[1-9][0-9]{0,18}((/[A-Za-z0-9_][A-Za-z0-9_.-]{0,62})?\\[[0-9]{1,12}\\])?|each:([a-z0-9][a-z0-9-]{0,62}-)?0*[1-9][0-9]{0,18}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,62})?)$";
/// No control characters.
pub(in crate::rest) const PRINTABLE: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$";
/// Likewise, and not blank.
pub(in crate::rest) const JOB_NAME: &str =
    "^[^\\u0000-\\u001f\\u007f-\\u009f]*[!-~][^\\u0000-\\u001f\\u007f-\\u009f]*$";
pub(in crate::rest) const GRAPHIC: &str = "^[!-~]+$";
pub(in crate::rest) const LABEL_KEY: &str = "^[A-Za-z0-9][A-Za-z0-9_./-]{0,62}$";
pub(in crate::rest) const LABEL_PAIR: &str =
    "^[A-Za-z0-9][A-Za-z0-9_./-]{0,62}=[^\\u0000-\\u001f\\u007f-\\u009f]{0,255}$";
pub(in crate::rest) const CONSTRAINT: &str =
    "^[A-Za-z0-9][A-Za-z0-9_./-]{0,62}!?=[^\\u0000-\\u001f\\u007f-\\u009f]{0,255}$";
/// Below 366 days.
pub(in crate::rest) const SPAN: &str =
    "^(?=.*[1-9])(([12]?[0-9]{1,2}d)?([0-9]{1,3}h)?([0-9]{1,4}m)?([0-9]{1,6}s)?([0-9]{1,8}ms)?|[0-9]{1,7})$";
/// 0.001 to 4096.
pub(in crate::rest) const CORES: &str = "^(?=.*[1-9])(4096|[0-3]?[0-9]{1,3}(\\.[0-9]{1,3})?)$";
/// 1 to 64 TiB.
pub(in crate::rest) const MEMORY: &str =
    "^(?=.*[1-9])([0-9]{1,13}B?|[0-9]{1,4}(\\.[0-9]{1,3})?[KMG](i?B)?|[0-5]?[0-9](\\.[0-9]{1,3})?T(i?B)?)$";
/// 0 to 16 TiB.
pub(in crate::rest) const INPUT_SIZE: &str =
    "^([0-9]{1,13}B?|[0-9]{1,4}(\\.[0-9]{1,3})?[KMG](i?B)?|(1[0-5]|[0-9])(\\.[0-9]{1,3})?T(i?B)?)$";
pub(in crate::rest) const MONEY: &str = "^[0-9]{1,12}(\\.[0-9]{1,6})?$";
pub(in crate::rest) const DIGEST: &str = "^[0-9a-f]{64}$";
/// Without a user or password.
pub(in crate::rest) const URL: &str = "^http://[!-\"$-.0->A-~]+([/?#][!-~]*)?$";
pub(in crate::rest) const ARRAY: &str = "^[0-9]{1,12}(-[0-9]{1,12}(:[1-9][0-9]{0,11})?)?(,[0-9]{1,12}(-[0-9]{1,12}(:[1-9][0-9]{0,11})?)?){0,999}(%[1-9][0-9]{0,8})?$";
/// Not `DRUMLINE_…`, which are set by Drumline.
pub(in crate::rest) const VARIABLE: &str = "^(?!DRUMLINE_)[A-Za-z_][A-Za-z0-9_]{0,254}$";
/// What can be handed to a process.
pub(in crate::rest) const WORD: &str = "^[^\\u0000]*$";
pub(in crate::rest) const SCRIPT: &str = "^[^\\u0000]*[!-~][^\\u0000]*$";
/// Relative, and staying below where it starts.
pub(in crate::rest) const PATH: &str = "^(?!/)(?!(.*/)?\\.\\.(/|$))[^\\u0000-\\u001f\\u007f-\\u009f]+$";
/// Likewise, with `*`, `?` and whole sets; not the directory itself.
pub(in crate::rest) const GLOB: &str = "^(?!/)(?!(.*/)?\\.\\.(/|$))(?!(\\.?/)*\\.?$)([^\\u0000-\\u001f\\u007f-\\u009f\\[]|\\[[!^]*[^\\u0000-\\u001f\\u007f-\\u009f/!^][^\\u0000-\\u001f\\u007f-\\u009f/\\]]*\\])+$";
