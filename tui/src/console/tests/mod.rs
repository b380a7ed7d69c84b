//! The console as a whole: what it asks for, what it shows, what that costs.

mod fixture;
mod idle;
mod keys;
mod random;
mod screens;
mod talk;
mod work;
