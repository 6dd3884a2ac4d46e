-- Each deployment has a placement, and is worked on by workers of that placement only. A worker of an older version, which
-- writes none, works on deployments of `local`: it takes no lease of any other, see `lease.rs`.
ALTER TABLE deployment ADD COLUMN placement TEXT NOT NULL DEFAULT 'local';
CREATE INDEX deployment_by_placement ON deployment (placement, id);
ALTER TABLE worker ADD COLUMN placement TEXT;
