# -*- coding: utf-8 -*-
# Python 2's library and numpy; library.txt is what Python 2.7.18 prints, with numpy 1.11 and Pillow 4.0.
import sys, os, string, StringIO, cStringIO, math, csv, types, operator, itertools, subprocess, pickle, cPickle, sets
import numpy as np, PIL.Image
import numpy.random as npr
from itertools import izip, imap, ifilter, count
from cStringIO import StringIO as Buffer

def show():
	for i in range(2):
	    print 'tab then', i,
        if i:
		print 'deep'
	return """in a
	string""", '	'

print repr(show())
print string.join(['fc', '0'], '_'), string.join(['a', 'b']), string.letters[:3], string.lowercase[-1], string.uppercase[0]
print string.atoi('3'), string.atoi('ff', 16), string.atof('1.5'), string.atol('7') + 0, string.zfill(7, 3), string.zfill('-7', 4)
print string.replace('aXbX', 'X', '.', 1), string.split('a b  c'), string.split('a,b', ','), string.splitfields('a,b', ',')
print string.strip('  x '), string.upper('x'), string.find('abc', 'c'), string.rjust('x', 3), string.count('aa', 'a')
print string.translate('abc', string.maketrans('ab', 'xy')), 'a-b.c'.translate(None, string.punctuation)
print string.capitalize('ab'), string.index('abc', 'b'), string.joinfields(['a', 'b'], '-'), repr(string.whitespace)
print map(string.strip, [' a ', 'b ']), string.digits, isinstance(string.index_error(), ValueError)

f = cStringIO.StringIO()
PIL.Image.fromarray(np.zeros((4, 4, 3), 'uint8')).save(f, 'png')
print PIL.Image.open(StringIO.StringIO(f.getvalue())).size, f.getvalue()[1:4] == 'PNG'.encode('ascii')
s = Buffer('one\ntwo\n')
print s.readline().strip(), [line.strip() for line in s], s.tell()
s = StringIO.StringIO()
s.write('a'); s.write(u'b'); print >>s, 'c'
print repr(str(s.getvalue())), s.len
s = Buffer(); s.write('x' * 3); s.reset(); print s.read(2)

print math.floor(5) / 2, math.ceil(4.1), int(math.floor(-2.5)), math.sqrt(4)
print np.divide(7, 2), np.arange(4) / [2, 2, 2, 2], np.array([1, 2, 3]) / 2, np.divide([1, 4], 2.).tolist(), np.bool_(1) / 2
print operator.div(7, 2), eval('7 / 2'), eval(' {"a": 7 / 2, "b": 7L}')['a']
exec 'print 7 / 2, `3`'
space = {}
exec 'a = 7 / 2' in space
print space['a'], eval(compile('9 / 2', 'x', 'eval'))
print list(izip(count(), 'ab')), list(imap(None, [1], 'a')), list(ifilter(None, [0, 1])), list(itertools.izip_longest('a', []))
print type(1) == types.IntType, type('') is types.StringType, isinstance(u'', types.StringTypes), type(None) is types.NoneType

x = np.arange(10)
half = np.round(2.5)
print x[half:], x[:3.7 + 1][::2], np.zeros(half).shape, np.ones((half, 3.)).shape, np.linspace(0, 1, 3.).tolist()
np.random.seed(3)
print npr.choice(x, size=half, replace=False).shape, npr.randn(2., 1).shape
print np.array([[1], [1, 2]]).dtype, np.array([1, 2], copy=False), np.array(np.zeros(2), dtype=np.float32, copy=False).dtype
a = np.zeros((2, 2), np.uint8); a.itemset((0, 1), 5); a.itemset(3, 2); print a.tolist(), a.ptp(), len(a.tostring())
print np.fromstring(a.tostring(), np.uint8).tolist(), a.newbyteorder().dtype.kind, 'café'.decode('utf-8') == u'café'

open('out.bin', 'w').write(np.arange(3, dtype=np.uint8).tostring())
print np.fromstring(open('out.bin').read(), np.uint8).tolist(), np.fromfile(open('out.bin'), np.uint8).tolist()
print >>open('list.txt', 'wb'), 'one 1'
print [line.split() for line in open('list.txt')], open('list.txt', 'rb').read() == 'one 1\n'.encode('ascii')
pickle.dump({'a': x}, open('x.pkl', 'w')); print cPickle.load(open('x.pkl'))['a'].sum(), cPickle.load(open('x.pkl', 'rb'))['a'].sum()
print cPickle.loads(cPickle.dumps(x, cPickle.HIGHEST_PROTOCOL)).sum(), pickle.loads("cnumpy\nint64\np0\n.").__name__
w = csv.writer(open('t.csv', 'wb')); w.writerow(['a', 1]); del w
print list(csv.reader(open('t.csv', 'rb'))), [sorted(row.items()) for row in csv.DictReader(open('t.csv', 'rb'), ['k', 'v'])]
print subprocess.check_output(['echo', 'hi']).strip().split('h'), len(sets.Set([1, 1]))
