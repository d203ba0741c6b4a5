//! What `oarlock plugin new` and `oarlock plugin build` do.
