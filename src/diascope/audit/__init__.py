"""The audit: models and images in; tables, intervals, findings and cases out."""

from diascope.audit.images import unseen_pixels
from diascope.audit.results import Finding, Results
from diascope.audit.run import audit
from diascope.audit.settings import AuditSettings
from diascope.audit.subject import Subject, open_subjects, unseen

__all__ = [
    "AuditSettings",
    "Finding",
    "Results",
    "Subject",
    "audit",
    "open_subjects",
    "unseen",
    "unseen_pixels",
]
