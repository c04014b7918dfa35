"""Programs that try to be rewarded without the right result, or to escape. A script prints "escaped" if its attack worked.

In the programs, ``OUTSIDE`` stands for a folder that anybody may write, ``PARENT`` for the id of the process that runs the
tests, ``PORT`` for a port of that process on TCP and UDP, ``NAME`` for an abstract socket. The tests expect a ``TOKEN``
that is in no program.
"""

CTYPES = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(*a): return libc.syscall(*[ctypes.c_long(x) if isinstance(x, int) else x for x in a])
import platform
def number(x86, arm): return x86 if platform.machine() == "x86_64" else arm
"""

# Programs whose standard output is compared: it must not be "escaped"

SCRIPTS = {
    "infinite loop": "while True: pass",
    "sleep forever": "import time; time.sleep(1e6)",
    "read forever": "import os; r, w = os.pipe(); os.read(r, 1); print('escaped')",
    "memory bomb": "x = []\nwhile True: x.append(bytearray(1 << 20))",
    "memory bomb of small things": "x = []\nwhile True: x.append([x])",
    "one huge allocation": "x = bytearray(10 << 30); print('escaped')",
    "fork bomb": "import os\nwhile True: os.fork()",
    "fork": "import os\nif os.fork() == 0: os._exit(0)\nprint('escaped')",
    "vfork and clone by number": CTYPES
    + "if call(number(58, 220), 17, 0, 0, 0, 0) >= 0: print('escaped')\nelse: raise OSError",
    "clone3 by number": CTYPES
    + "if call(435, ctypes.create_string_buffer(88), 88) >= 0: print('escaped')\nelse: raise OSError",
    "thread bomb": "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(1e6,), daemon=True).start()",
    "threads that do not end": "import threading, time\nthreading.Thread(target=time.sleep, args=(1e6,)).start(); print('escaped')",
    "threads that burn": "import threading\ndef f():\n while True: pass\nfor _ in range(4): threading.Thread(target=f).start()",
    "subprocess": "import subprocess; subprocess.run(['/bin/true'], check=True); print('escaped')",
    "os.system": "import os\nif os.system('true') == 0: print('escaped')\nelse: raise OSError",
    "exec": "import os; os.execv('/bin/echo', ['echo', 'escaped'])",
    "posix_spawn": "import os; os.posix_spawn('/bin/true', ['true'], {}); print('escaped')",
    "multiprocessing": "import multiprocessing as m; p = m.get_context('fork').Process(target=print); p.start(); print('escaped')",
    "daemon by double fork": "import os\nif os.fork() == 0:\n os.setsid()\n if os.fork() == 0:\n  open('OUTSIDE/daemon', 'w')\nprint('escaped')",
    "a session of its own": "import os; os.setsid(); print('escaped')",
    "a group of another": "import os; os.setpgid(0, os.getppid()); print('escaped')",
    "write outside": "open('OUTSIDE/sentinel', 'w').write('x'); print('escaped')",
    "new file outside": "open('OUTSIDE/new', 'w').write('x'); print('escaped')",
    "new folder outside": "import os; os.mkdir('OUTSIDE/new'); print('escaped')",
    "remove outside": "import os; os.unlink('OUTSIDE/sentinel'); print('escaped')",
    "rename outside": "import os; os.rename('OUTSIDE/sentinel', 'OUTSIDE/other'); print('escaped')",
    "truncate outside": "import os; os.truncate('OUTSIDE/sentinel', 0); print('escaped')",
    "read outside": "print(open('OUTSIDE/sentinel').read()); print('escaped')",
    "list outside": "import os; os.listdir('OUTSIDE'); print('escaped')",
    "list the temporary folder": "import os; os.listdir('/tmp'); print('escaped')",
    "up from the own folder": "import os; open('../new', 'w'); print('escaped')",
    "up by an open folder": "import os\nd = os.open('.', os.O_RDONLY)\nos.open('../../../etc/passwd', os.O_RDONLY, dir_fd=d); print('escaped')",
    "read passwd": "open('/etc/passwd').read(); print('escaped')",
    "read a home": "import os, glob\nfor h in ('/root', '/home'): os.listdir(h)\nprint('escaped')",
    "read memory of the parent": "open('/proc/PARENT/mem', 'rb'); print('escaped')",
    "read memory of the zygote": "import os; open(f'/proc/{os.getppid()}/mem', 'rb'); print('escaped')",
    "read environment of the parent": "print(open('/proc/PARENT/environ').read()); print('escaped')",
    "read own environment for secrets": "import os\nif 'SECRET_TOKEN' in os.environ: print('escaped')\nelse: raise KeyError",
    "read environment by C": CTYPES
    + "libc.getenv.restype = ctypes.c_char_p\nif libc.getenv(b'SECRET_TOKEN'): print('escaped')\nelse: raise KeyError",
    "file descriptors of others": "import os; os.listdir('/proc/PARENT/fd'); print('escaped')",
    "TCP": "import socket; socket.create_connection(('127.0.0.1', PORT), 2); print('escaped')",
    "TCP server": "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); print('escaped')",
    "UDP": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', PORT)); print('escaped')",
    "raw socket": "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW); print('escaped')",
    "netlink": "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW); print('escaped')",
    "unix socket by path": "import socket; socket.socket(socket.AF_UNIX).connect('OUTSIDE/socket'); print('escaped')",
    "unix socket by name": "import socket; socket.socket(socket.AF_UNIX).connect('\\0NAME'); print('escaped')",
    "a socket pair sends elsewhere": "import socket\na, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\na.sendto(b'x', '\\0NAMEd'); print('escaped')",
    "kill parent": "import os; os.kill(PARENT, 0); print('escaped')",
    "kill zygote": "import os; os.kill(os.getppid(), 9); print('escaped')",
    "kill all": "import os; os.kill(-1, 9); print('escaped')",
    "kill group": "import os; os.killpg(0, 0); print('escaped')",
    "kill by thread": CTYPES + "if call(number(200, 130), PARENT, 0) == 0: print('escaped')\nelse: raise OSError",
    "kill by queue": CTYPES
    + "b = ctypes.create_string_buffer(128)\nif call(number(129, 138), PARENT, 10, b) == 0: print('escaped')\nelse: raise OSError",
    "kill by pidfd": "import os, signal; signal.pidfd_send_signal(os.pidfd_open(PARENT), 0); print('escaped')",
    "signals by fcntl": "import fcntl, os\nr, w = os.pipe()\nfcntl.fcntl(r, 8, PARENT); print('escaped')",
    "ptrace": CTYPES + "if call(number(101, 117), 16, PARENT, 0, 0) == 0: print('escaped')\nelse: raise OSError",
    "traceme": CTYPES + "if call(number(101, 117), 0, 0, 0, 0) == 0: print('escaped')\nelse: raise OSError",
    "process_vm_readv": CTYPES
    + "b = ctypes.create_string_buffer(64)\nif call(number(310, 270), PARENT, b, 1, b, 1, 0) >= 0 or ctypes.get_errno() != 1: print('escaped')\nelse: raise OSError",
    "mount": CTYPES
    + "if call(number(165, 40), b'none', b'.', b'tmpfs', 0, 0) == 0: print('escaped')\nelse: raise OSError",
    "unshare": CTYPES + "if call(number(272, 97), 0x10000000) == 0: print('escaped')\nelse: raise OSError",
    "setns": CTYPES
    + "if call(number(308, 268), 0, 0) == 0 or ctypes.get_errno() != 1: print('escaped')\nelse: raise OSError",
    "io_uring": CTYPES
    + "b = ctypes.create_string_buffer(120)\nif call(425, 4, b) >= 0: print('escaped')\nelse: raise OSError",
    "bpf and keys and perf": CTYPES
    + "for n in [number(321, 280), number(250, 219), number(298, 241), number(323, 282), number(319, 279)]:\n assert call(n, 0, 0, 0, 0, 0) < 0 and ctypes.get_errno() == 1\nraise OSError",
    "32-bit system call": CTYPES
    + "import mmap\nif platform.machine() != 'x86_64': raise OSError\nm = mmap.mmap(-1, 4096, prot=7)\nm.write(bytes([0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xc3]))\nctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))()\nprint('escaped')",
    "x32 system call": CTYPES + "call(0x40000000 + 39); print('escaped')",
    "chroot": "import os; os.chroot('.'); print('escaped')",
    "become root": "import os\nos.setresuid(0, 0, 0)\nprint('escaped')",
    "symbolic link": "import os; os.symlink('/etc/passwd', 'x'); print(open('x').read()); print('escaped')",
    "hard link": "import os; os.link('OUTSIDE/sentinel', 'x'); open('x', 'w').write('x'); print('escaped')",
    "device": "import os, stat; os.mknod('x', stat.S_IFCHR | 0o666, os.makedev(1, 1)); print('escaped')",
    "pipe in the file system": "import os; os.mkfifo('x'); print('escaped')",
    "chmod of another": "import os; os.chmod('OUTSIDE/sentinel', 0); print('escaped')",
    "chown of another": "import os; os.chown('OUTSIDE/sentinel', os.getuid(), -1); print('escaped')",
    "times of another": "import os; os.utime('OUTSIDE/sentinel', (1, 1)); print('escaped')",
    "attributes of another": "import os; os.setxattr('OUTSIDE/sentinel', 'user.x', b'x'); print('escaped')",
    "shared memory": "from multiprocessing import shared_memory; shared_memory.SharedMemory('x', create=True, size=10); print('escaped')",
    "system V memory": CTYPES + "if call(number(29, 194), 7, 4096, 0o1666) >= 0: print('escaped')\nelse: raise OSError",
    "huge output": "while True: print('x' * 10000)",
    "huge output to stderr": "import sys\nwhile True: sys.stderr.write('x' * 10000)",
    "output without end of the process": "import os\nwhile True: os.write(1, b'x' * 65536)",
    "one huge file": "f = open('x', 'wb')\nwhile True: f.write(bytes(1 << 20))",
    "many files": "i = 0\nwhile True: i += 1; open(str(i), 'w').write('x' * 4000)",
    "deep folders": "import os\nwhile True: os.mkdir('d'); os.chdir('d')",
    "folders that nobody may enter": "import os\nfor i in range(40): os.mkdir(str(i), 0); os.mkdir(f'w{i}', 0o300); os.mkdir(f'w{i}/x', 0)\nraise OSError",
    "grow stdin": "import os; os.ftruncate(0, 1 << 30); print('escaped')",
    "write to stdin": "import os; os.write(0, b'x'); print('escaped')",
    "exit at once": "import os; os._exit(0)",
    "sys.exit": "import sys; sys.exit(0)",
    "SystemExit": "raise SystemExit",
    "right but fails": "print('escaped'); raise ValueError",
    "right but a bad status": "import sys; print('escaped'); sys.exit(3)",
    "right but killed": "import os; print('escaped', flush=True); os.kill(os.getpid(), 9)",
    "segmentation fault": "import ctypes; print('escaped', flush=True); ctypes.string_at(0)",
    "abort": "import os; print('escaped', flush=True); os.abort()",
    "print that lies": "import builtins\nbuiltins.print = lambda *a: None\nprint('escaped')",
    "all descriptors closed": "import os; os.closerange(0, 1000); print('escaped')",
    "writing to every descriptor": 'import os\nfor fd in range(3, 1024):\n try: os.write(fd, b\'{"pid": 1, "status": 0, "cpu": 0}\\npassed\\n\')\n except OSError: pass',
    "all signals ignored": "import signal\nfor s in range(1, 65):\n try: signal.signal(s, signal.SIG_IGN)\n except (OSError, ValueError): pass\nwhile True: pass",
    "all signals blocked": "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass",
    "raising limits": "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1000, 1000)); print('escaped')",
    "raising memory": "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1)); print('escaped')",
    "limits of another": "import resource\nresource.prlimit(PARENT, resource.RLIMIT_CPU, (1, 1)); print('escaped')",
    "higher priority": "import os; os.nice(-5); print('escaped')",
    "atexit that loops": "import atexit\n@atexit.register\ndef f():\n while True: pass",
    "settrace that loops": "import sys\ndef f(*a):\n while True: pass\nsys.settrace(f)\ndef g(): pass\ng()",
    "finalizer that loops": "class A:\n def __del__(self):\n  while True: pass\nA()",
    "deep recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()",
    "deep recursion in C": "import sys\nsys.setrecursionlimit(10**9)\nclass A:\n def __getattr__(self, n): return getattr(self, n)\nA().x",
    "infinite regular expression": "import re; re.match(r'(a+)+b', 'a' * 100)",
    "huge integer": "x = 9 ** 9 ** 9",
    "huge integer as text": "import sys; sys.set_int_max_str_digits(0); str(7 ** 10 ** 7)",
    "lone surrogates": "print('\\ud800')",
    "surrogate in the source": "print('\ud800')",
    "null bytes in the source": "print('escaped')\0",
    "syntax error": "print('escaped'",
    "10 MB of source": "x = 1\n" * (10 << 20),
    "nested source": "(" * 5000 + ")" * 5000,
    "source of a huge expression": "x = " + "+".join(["1"] * 200_000),
    "out of memory in a thread": "import threading\ndef f():\n x = []\n while True: x.append(bytearray(1 << 20))\nt = threading.Thread(target=f); t.start(); t.join()",
    "nothing": "",
}

# Programs whose functions are called by "assert answer(7) == TOKEN"; they cannot know the token

EVIL = "class Evil{base}:\n def __eq__(self, o): return True\n def __ne__(self, o): return False\n def __hash__(self): return 0\n def __lt__(self, o): return True\n __gt__ = __le__ = __ge__ = __lt__\n def __bool__(self): return True\n def __sub__(self, o): return 0\n __rsub__ = __sub__\n def __abs__(self): return 0\n def __float__(self): return 0.0\n def __len__(self): return 1\n def __contains__(self, o): return True\n def __instancecheck__(self, o): return True\n def __getattr__(self, n): return self\n def __call__(self, *a): return self\n"

MODULES = {
    "equal to everything": EVIL.format(base="") + "def answer(x): return Evil()",
    "integer equal to everything": EVIL.format(base="(int)") + "def answer(x): return Evil(3)",
    "text equal to everything": EVIL.format(base="(str)") + "def answer(x): return Evil('')",
    "number equal to everything": EVIL.format(base="(float)") + "def answer(x): return Evil(1)",
    "list equal to everything": EVIL.format(base="(list)") + "def answer(x): return Evil()",
    "object in place of the function": EVIL.format(base="") + "answer = Evil()",
    "exit in the function": "import os\ndef answer(x): os._exit(0)",
    "sys.exit in the function": "import sys\ndef answer(x): sys.exit(0)",
    "exit at once": "import os; os._exit(0)",
    "SystemExit at once": "raise SystemExit(0)",
    "no function": "",
    "raises": "def answer(x): raise ValueError",
    "raises AssertionError": "def answer(x): raise AssertionError",
    "raises StopIteration": "def answer(x): raise StopIteration",
    "raises KeyboardInterrupt": "def answer(x): raise KeyboardInterrupt",
    "raises what cannot be said": "class E(Exception):\n def __str__(self): raise self\ndef answer(x): raise E",
    "loops": "def answer(x):\n while True: pass",
    "sleeps": "import time\ndef answer(x): time.sleep(1e6)",
    "prints": "def answer(x): print('passed'); print('OK')",
    "prints without end": "def answer(x):\n while True: print('passed')",
    "patched builtins": "import builtins\nfor n in ('isinstance', 'abs', 'all', 'any', 'len', 'sum', 'set', 'sorted', 'compile', 'exec'):\n setattr(builtins, n, lambda *a, **k: True)\ndef answer(x): return 1",
    "patched modules": "import json, ast, struct, math, operator, os, sys\nfor m in (json, ast, math, operator):\n for n in dir(m):\n  try: setattr(m, n, lambda *a, **k: True)\n  except Exception: pass\nstruct.pack = lambda *a: b'\\1\\0\\0\\0T'\ndef answer(x): return 1",
    "patched encoder": "from rljax.verifiers.jail import plain_data\nplain_data.encode = lambda *a: b'passed'\ndef answer(x): return 1",
    "patched assertions": "from rljax.verifiers.jail import assertion_process\nassertion_process.grade_case = lambda *a: 'passed'\nassertion_process.report_verdict('passed')\ndef answer(x): return 1",
    "verdicts on every descriptor": "import os\nfor fd in range(3, 1024):\n try: os.write(fd, b'ready\\npassed\\npassed\\n')\n except OSError: pass\ndef answer(x): return 1",
    "replies before they are asked for": "import os, struct\nfor d in [b'L\\2\\0\\0\\0S\\5\\0\\0\\0valueT'] * 9: os.write(4, struct.pack('<I', len(d)) + d)\ndef answer(x): return 1",
    "more names than were asked for": "import os, struct\nfrom rljax.verifiers.jail import plain_data\ndef send(v, k=None):\n d = plain_data.encode(v, k or plain_data.refuse_object); os.write(4, struct.pack('<I', len(d)) + d)\n"
    "names = ['answer', 'abs', 'set', 'isinstance', 'math']\nsend(['value', {}])\nfor _ in range(5): send(['value', {n: len for n in names}], lambda x: 1)\nfor _ in range(50): send(['value', 0])\ndef answer(x): return 1",
    "nonsense replies": "import os\ndef answer(x):\n os.write(4, b'\\x05\\0\\0\\0XXXXX'); return 1",
    "an endless reply": "import os\ndef answer(x):\n os.write(4, b'\\xff\\xff\\xff\\xff')\n while True: os.write(4, b'x' * 65536)",
    "a pickle as reply": "import os, pickle, struct\nclass A:\n def __reduce__(self): return (print, ('passed',))\ndef answer(x):\n d = pickle.dumps(A()); os.write(4, struct.pack('<I', len(d)) + d)",
    "channel closed": "import os\ndef answer(x): os.close(4); return 1",
    "a cycle": "def answer(x):\n a = []; a.append(a); return a",
    "deep data": "def answer(x):\n a = []\n for _ in range(10**5): a = [a]\n return a",
    "huge data": "def answer(x): return [0] * 10**8",
    "handle in place of a number": "def answer(x): return object()",
    "endless iterator": "def answer(x):\n while True: yield 1",
    "names of modules": "class math:\n isclose = staticmethod(lambda *a, **k: True)\ndef answer(x): return 1.0",
    "names of builtins": "def abs(x): return 0\ndef isinstance(*a): return True\ndef answer(x): return 1.0",
    "an object that checks itself": "class A:\n def startswith(self, x): return True\n issubset = startswith\n def difference(self, o): return set()\ndef answer(x): return A()",
    "a type in place of a value": "def answer(x): return str",
    "an object with the methods of an array": "class A:\n def all(self, *a): return True\n any = equals = get = tolist = item = all\ndef answer(x): return A()",
    "NaN": "def answer(x): return float('nan')",
    "colliding numbers": "def answer(x): return {i * (2**61 - 1): i for i in range(20000)}",
    "threads that answer later": "import threading, os, time\ndef late():\n while True: time.sleep(0.001); os.write(4, b'\\x0c\\0\\0\\0')\nthreading.Thread(target=late, daemon=True).start()\ndef answer(x): return 1",
}

SEARCH = """
import ctypes, gc, sys
found = []
halves = ["zebra", "quartz"]
def look(text):
    needle = halves[0] + halves[1]
    if needle in text: found.append(1)
def answer(x):
    for o in gc.get_objects():
        try: look(repr(o)[:100000])
        except Exception: pass
    frame = sys._getframe()
    while frame:
        look(repr(frame.f_locals) + repr(frame.f_code.co_consts)); frame = frame.f_back
    for name, module in list(sys.modules.items()):
        try: look(repr(vars(module))[:1000000])
        except Exception: pass
    try:
        for line in open('/proc/self/maps'):
            a, b = (int(v, 16) for v in line.split()[0].split('-'))
            if ' r' in line: look(ctypes.string_at(a, b - a).decode('latin1'))
        mem = open('/proc/self/mem', 'rb')
    except OSError: pass
    pages = {id(o) & ~0xFFF for o in gc.get_objects()}  # these are there; others might not be
    look(b''.join(ctypes.string_at(page, 0x1000) for page in sorted(pages)).decode('latin1'))
    return 'found' if found else 'nothing'
"""

# Scripts that print "escaped" if they got more than a kernel that can bound it may give them

BEYOND_LIMITS = {
    "files filled by fallocate": "import os\nfor n in range(20):\n f = os.open(str(n), os.O_CREAT | os.O_WRONLY); os.posix_fallocate(f, 0, 4 << 20); os.close(f)\nprint('escaped')",
    "files that are removed while they are open": "import os\nkept = []\nfor n in range(50):\n f = os.open('x', os.O_CREAT | os.O_WRONLY); os.unlink('x'); kept.append(f)\n for _ in range(4): os.write(f, bytes(1 << 20))\nprint('escaped')",
    "files that are removed while they are mapped": "import mmap, os\nkept = []\nfor n in range(200):\n f = os.open('x', os.O_CREAT | os.O_RDWR); os.ftruncate(f, 1 << 20); m = mmap.mmap(f, 1 << 20); os.unlink('x'); os.close(f); kept.append(m)\n m[:] = bytes(1 << 20)\nprint('escaped')",
    "a sparse file that is filled through memory": "import mmap, os\nfor n in range(20):\n f = os.open(str(n), os.O_CREAT | os.O_RDWR); os.ftruncate(f, 1 << 20); m = mmap.mmap(f, 1 << 20); m[:] = bytes(1 << 20)\nprint('escaped')",
    "folders without end": "import os\nfor n in range(1000): os.mkdir(str(n))\nprint('escaped')",
    "a hundred threads": "import threading, time\nfor n in range(100): threading.Thread(target=time.sleep, args=(1e6,), daemon=True).start()\nprint('escaped', flush=True)\nimport os; os._exit(0)",
    "threads that start threads": "import threading, time, os\ndef grow():\n try: threading.Thread(target=grow, daemon=True).start(); threading.Thread(target=grow, daemon=True).start()\n except RuntimeError: pass\n time.sleep(1e6)\ngrow_main = threading.Thread(target=grow, daemon=True); grow_main.start()\ntime.sleep(0.3)\nprint('escaped' if len(os.listdir('.')) or threading.active_count() > 140 else 'held', flush=True); os._exit(0)",
}
