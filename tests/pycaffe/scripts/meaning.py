# -*- coding: utf-8 -*-
# What parses alike and means something else, and Python 2's library; meaning.txt is what Python 2.7.18 prints.
import sys, random, os
import cPickle, StringIO
from itertools import izip

def half(a, (b, c)):
    return (a + b) / c

class Ratio:
    def __init__(self, v):
        self.v = v
    def __div__(self, o):
        return 'div %d %d' % (self.v, o)
    def __nonzero__(self):
        return False

print 'argv', sys.argv[1:], __name__, os.path.basename(__file__)
print 7 / 2, -7 / 2, 7. / 2, 7 % 3, 7L / 2
x = 9
x /= 2
d = {'a': 7}
d['a'] /= 2
class O: pass
o = O(); o.v = 11
o.v /= 4
print x, d['a'], o.v, half(1, (8, 2)), Ratio(4) / 3, bool(Ratio(1))
print d.has_key('a'), sorted(d.iteritems()), d.keys()[0]
print round(2.5), round(-0.5), round(2.675, 2), round(1234.5, -2), round(0.5)
print map(None, [1, 2], [3]), filter(lambda c: c > 'a', 'abc'), zip([1, 2], 'ab'), range(3)
print reduce(lambda a, b: a + b, xrange(5)), sorted([3, 1, 2], lambda a, b: cmp(b, a)), sorted('bca', reverse=True)
try:
    raise ValueError, 'wrong'
except ValueError, e:
    print 'caught', e
print isinstance(u'x', unicode), isinstance('x', basestring), `3`, 1 <> 2, 0777
random.seed(1337)
print [random.randint(0, 8497) for _ in range(5)]
print random.choice('abcdefg'), '%.15f %.14f' % (random.random(), random.uniform(1, 5))
q = range(10); random.shuffle(q); print q
print random.sample(range(100), 5), random.sample(xrange(1000), 30)[:5], random.randrange(3, 50, 7)
random.seed('hello'); print '%.15f' % random.random()
r = random.Random(3); print r.randint(1, 10), '%.12f' % r.gauss(0, 1)
from random import shuffle as sh
random.seed(5); z = range(6); sh(z); print z
exec 'y = 5 % 2'
print y, len(list(izip('ab', 'cd')))
s = StringIO.StringIO(); print >>s, 'into it'; print repr(s.getvalue())
print 'a',
print 'b'
print ('one'), ('a', 'b')
print("tuple", 1)
print cPickle.loads(cPickle.dumps([1, 2])), unichr(65)
def gen():
    yield 1
print gen().next(), "%d%%" % (9 / 2), 'æ' == 'æ'
