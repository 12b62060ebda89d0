"""Files of a study in one ZIP archive, with a manifest or as they lie; unpacked only if all is right."""

from __future__ import annotations

from datastore_lab.bundles.manifest import Bundle, open_bundle, write_bundle
from datastore_lab.bundles.packing import Member, write_zip
from datastore_lab.bundles.unpacking import read_zip

__all__ = ["Bundle", "Member", "open_bundle", "read_zip", "write_bundle", "write_zip"]
