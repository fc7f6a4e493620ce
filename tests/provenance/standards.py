"""What others' libraries say of what the program writes; each is given files, and raises where they find a fault."""

import json

import pytest


def valid_attestations(files):
    """Has `in-toto-attestation`'s own classes parse each attestation, to the last field, and validate it."""
    statements = pytest.importorskip("in_toto_attestation.v1.statement", reason="the extra is not installed: make evidence")
    from google.protobuf import json_format
    from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor

    files = list(files)
    assert files
    for file in files:
        text = file.read_text()
        statements.Statement.copy_from_pb(json_format.Parse(text, statement_pb2.Statement())).validate()
        provenance = json_format.ParseDict(json.loads(text)["predicate"], provenance_pb2.Provenance())
        for one in (*provenance.build_definition.resolved_dependencies, *provenance.run_details.byproducts):
            ResourceDescriptor.copy_from_pb(one).validate()
        assert provenance.build_definition.build_type.startswith("urn:astolfo:job:"), file
        assert provenance.run_details.builder.id, file
