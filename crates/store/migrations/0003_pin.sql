-- The files that a revision serves, as JSON; NULL until its first replica has found them.
ALTER TABLE revision ADD COLUMN pin TEXT;
