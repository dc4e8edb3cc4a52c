# Compiles Python sources to unchecked hash-based .pyc files (PEP 552).
# stdin:  for each source: length of the path, path, length of the content, content
# stdout: for each source: length of the .pyc and the .pyc, or NONE
# All lengths are 32-bit little-endian.
import importlib.util
import marshal
import struct
import sys
import warnings

NONE = 0xFFFFFFFF
HASH_BASED_UNCHECKED = 0b01

warnings.simplefilter("ignore")
request = sys.stdin.buffer.read()
answer = sys.stdout.buffer
at = 0


def take():
    global at
    (length,) = struct.unpack_from("<I", request, at)
    start = at + 4
    at = start + length
    return request[start:at]


while at < len(request):
    path = take().decode()
    source = take()
    try:
        code = compile(source, "/" + path, "exec", dont_inherit=True, optimize=0)
    except Exception:
        # A template or test data: the interpreter could not run it either.
        answer.write(struct.pack("<I", NONE))
        continue
    header = importlib.util.MAGIC_NUMBER + struct.pack("<I", HASH_BASED_UNCHECKED)
    pyc = header + importlib.util.source_hash(source) + marshal.dumps(code)
    answer.write(struct.pack("<I", len(pyc)))
    answer.write(pyc)
