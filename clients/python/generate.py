"""Makes `src/drumline/v1` from the `.proto` files.

In the repository these are Drumline's own, copied to `proto/` (with the licence)
so that a source distribution has them; unpacked from one, `proto/` is all there is.

    python generate.py
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
THEIRS = REPOSITORY / "proto" / "proto"
OURS = HERE / "proto"
SOURCES = HERE / "src"
PACKAGE = "drumline/v1"
# What tenants and operators call, and what that is made of. The rest is between
# the cluster's own parts.
FILES = ["tenant.proto", "types.proto", "rows.proto"]


def main() -> None:
    """Copies, where there is something to copy from, and generates."""
    if (THEIRS / PACKAGE).is_dir():
        (OURS / PACKAGE).mkdir(parents=True, exist_ok=True)
        for name in FILES:
            shutil.copyfile(THEIRS / PACKAGE / name, OURS / PACKAGE / name)
        shutil.copyfile(REPOSITORY / "LICENSE", HERE / "LICENSE")
    out = SOURCES / PACKAGE
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        described = Path(scratch) / "files"
        protoc(
            [
                f"--python_out={SOURCES}",
                f"--pyi_out={SOURCES}",
                f"--grpc_python_out={SOURCES}",
                f"--descriptor_set_out={described}",
                *(f"{PACKAGE}/{name}" for name in FILES),
            ]
        )
        files = FileDescriptorSet.FromString(described.read_bytes()).file
    (out / "__init__.py").write_text('"""The wire types, generated from the .proto files."""\n')
    for file in files:
        module = Path(file.name).stem
        (out / f"{module}_pb2_grpc.pyi").write_text(service_types(file, module))


def protoc(arguments: list[str]) -> None:
    """Runs the compiler that comes with grpcio-tools."""
    import grpc_tools
    from grpc_tools import protoc as compiler

    well_known = Path(grpc_tools.__file__).parent / "_proto"
    code = compiler.main(["protoc", f"-I{OURS}", f"-I{well_known}", *arguments])
    if code != 0:
        raise SystemExit(f"error: protoc ended with {code}; what is wrong stands above")


def service_types(file: FileDescriptorProto, module: str) -> str:
    """The types of a file's stubs, which grpcio-tools leaves out."""
    lines = ["from typing import Any", "import grpc", f"from drumline.v1 import {module}_pb2", ""]
    for service in file.service:
        lines.append(f"class {service.name}Stub:")
        lines.append("    def __init__(self, channel: grpc.Channel) -> None: ...")
        for method in service.method:
            asks = "Stream" if method.client_streaming else "Unary"
            answers = "Stream" if method.server_streaming else "Unary"
            given, got = (
                f"{module}_pb2.{name.rsplit('.', 1)[-1]}" for name in (method.input_type, method.output_type)
            )
            lines.append(f"    {method.name}: grpc.{asks}{answers}MultiCallable[{given}, {got}]")
        lines.append(f"class {service.name}Servicer:")
        lines.extend(
            f"    def {method.name}(self, request: Any, context: grpc.ServicerContext) -> Any: ..."
            for method in service.method
        )
        lines.append(
            f"def add_{service.name}Servicer_to_server("
            f"servicer: {service.name}Servicer, server: grpc.Server) -> None: ..."
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
